"""Networks that nobody chose, on the cpu, against the definition in float64.

How far float32 may stray depends on the network; here the definition in float32 is the measure, as TensorFlow is in
`accuracy`.
"""

from accuracy import EPS, error
from hypothesis import HealthCheck, given, settings
from random_networks import networks


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(network=networks())
def test_the_cpu_is_as_near_to_float64_as_the_definition_in_float32_is(network):
    truth, cpu, definition = network.run("definition", "float64"), network.run("cpu"), network.run("definition")
    assert {name: value.shape for name, value in cpu.items()} == network.described
    assert list(cpu) == list(definition) == list(truth) == list(network.described)
    largest = 0.0
    for name, value in truth.items():
        largest = max(largest, error(definition[name], value))
        assert error(cpu[name], value) <= 4 * largest + 4 * EPS, name
