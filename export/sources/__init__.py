"""From what users have (a name, a module, a program, a file) to a forward graph."""
