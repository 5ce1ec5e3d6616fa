"""The command line: `main` finds the sub-command, each other file is one."""
