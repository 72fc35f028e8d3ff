"""Numbered blocks of work, in this process or over Ray: only function, spec and block."""
