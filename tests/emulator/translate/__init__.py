"""PTX -> C++, by instruction family."""
