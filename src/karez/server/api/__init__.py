"""Routes of the API: parse, check the role, call one service method, return.

Every route names its role (server.api.authorization); one without is refused at start-up.
"""
