"""What the emulator raises."""


class EmulatorError(RuntimeError):
    """A kernel broke a rule of the device, or could not be built or launched."""


class UnsupportedPTX(EmulatorError):
    """PTX that the translator does not model; the message names the instruction and its line."""
