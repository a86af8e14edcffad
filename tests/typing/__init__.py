"""What a type checker must see at the doors that users have. mypy reads it; nothing runs it."""
