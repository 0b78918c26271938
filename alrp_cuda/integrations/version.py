"""Which versions of a framework an integration takes."""


def check_version(framework: str, found: str, oldest: str) -> None:
    """Raise ImportError where ``framework`` in version ``found`` is older than ``oldest``, which is known to work.

    Nobody knows what newer ones will do, and a version that does not begin with a number is not judged.

    Example:
        >>> check_version("ultralytics", "8.4.200", "8.4.190")
    """
    numbers = [tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) for version in (found, oldest)]
    if numbers[0] and numbers[0] < numbers[1]:
        raise ImportError(
            f"alrp_cuda.integrations.{framework} takes {framework} {oldest} or newer, got {found}: "
            f"pip install '{framework}>={oldest}'"
        )
