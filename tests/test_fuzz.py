"""A few of the calls that ``make fuzz`` makes, the same in every run; make test-full looks for new ones."""

import pytest
from fuzzing import SIZES, calls, check
from hypothesis import HealthCheck, given, settings

# How many times the profile's examples (conftest.py), and the largest size: the emulated device is slow.
FORMS = {"cpu": (6, SIZES), "emulated": (1 / 3, [n for n in SIZES if n <= 64]), "cuda": (6, SIZES)}


@pytest.mark.filterwarnings("error")
def test_any_call_gives_the_right_numbers_or_error(backend):
    factor, sizes = FORMS[backend]

    @settings(max_examples=round(factor * settings().max_examples), suppress_health_check=list(HealthCheck), database=None)
    @given(call=calls(backend, sizes))
    def checked(call):
        check(call)

    checked()
