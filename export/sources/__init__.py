"""From what a user has (a name, a module, a program, a file) to a forward graph."""
