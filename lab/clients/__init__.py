"""Stand-ins for vendors' client commands. The executables in this directory go on PATH."""
