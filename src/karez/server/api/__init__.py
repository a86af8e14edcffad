"""Routes: parse, check the role, call one service method, return.

Every route names its role (server.api.guard); one without is refused at start-up.
"""
