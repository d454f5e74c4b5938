"""The same rooms as the package, and the stories of what once went wrong."""
