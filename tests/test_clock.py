from cifar_jax.clock import Clock


def test_calls_are_lengthened_to_about_a_second():
    clock = Clock(0)
    assert clock.next_steps(1000) == 1
    clock.step_seconds = 0.02
    assert clock.next_steps(1000) == 50
    assert clock.next_steps(30) == 30
    clock.step_seconds = 5.0
    assert clock.next_steps(1000) == 1
    assert Clock(8).next_steps(1000) == 8
