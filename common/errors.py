from common.command_line import UserError  # noqa: F401
