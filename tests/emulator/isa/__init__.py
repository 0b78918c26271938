"""A model of the PTX ISA in exact integers and fractions, to compare the emulator with."""
