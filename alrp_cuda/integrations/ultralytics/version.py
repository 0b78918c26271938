"""Which Ultralytics this integration takes."""

OLDEST = "8.4.190"  # earlier ones compute no box loss for a batch without objects, or name the losses elsewhere


def check_version(found: str) -> None:
    """Raise ImportError where Ultralytics ``found`` is older than what is known here.

    Nobody knows what newer ones will do, and a version that does not begin with a number is not judged.

    Example:
        >>> check_version("8.4.200")
    """
    numbers = [tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) for version in (found, OLDEST)]
    if numbers[0] and numbers[0] < numbers[1]:
        raise ImportError(
            f"alrp_cuda.integrations.ultralytics takes ultralytics {OLDEST} or newer, got {found}: "
            f"pip install 'ultralytics>={OLDEST}'"
        )
