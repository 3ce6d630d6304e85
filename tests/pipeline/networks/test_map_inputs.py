"""Which images a step sees, and what their maps are made from."""

import itertools
import threading

import numpy as np
import pytest
import torch

from pipeline.images.light import draw_light
from pipeline.networks.backbones import make_backbone
from pipeline.networks.map_inputs import ImageDraw, ImageOrder, MapInput, map_of, mirror_record, read_ahead
from pipeline.networks.whole_images import Scaling, conv_map, image_tensor
from pipeline.seeding import make_generator

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SCALING = Scaling.of(40, 60, 48, 1000)


class TestOrder:
    @pytest.mark.parametrize("mirror", [False, True])
    @pytest.mark.parametrize("images_a_step", [1, 2, 3])
    def test_each_image_once_an_epoch_in_another_order(self, mirror, images_a_step):
        order = ImageOrder([4, 1, 7, 9, 2], mirror, images_a_step, 0)
        epoch = [(number, mirrored) for number in (1, 2, 4, 7, 9) for mirrored in sorted({False, mirror})]
        size = len(epoch)
        turns = list(itertools.chain.from_iterable(order.draw(step) for step in range(3 * size)))
        assert [turn.place for turn in turns] == list(range(3 * size * images_a_step))
        seen = [[(turn.number, turn.mirrored) for turn in turns[first : first + size]] for first in range(0, len(turns), size)]
        assert all(sorted(drawn) == epoch for drawn in seen)
        assert len(set(map(tuple, seen[:3]))) == 3

    def test_a_step_drawn_alone_is_the_one_drawn_in_sequence(self):
        order = ImageOrder(range(7), True, 3, 5)
        drawn = [order.draw(step) for step in range(20)]
        for step in (19, 3, 11, 0):
            assert ImageOrder(range(7), True, 3, 5).draw(step) == order.draw(step) == drawn[step]
        assert ImageOrder(range(7), True, 3, 6).draw(0) != drawn[0]

    def test_more_images_a_step_than_there_are(self):
        assert [turn.number for turn in ImageOrder([3], False, 4, 0).draw(1)] == [3] * 4


def test_a_mirrored_record_is_that_of_the_mirrored_image(make_record):
    record = make_record("a", [[0, 5, 30, 25], [70, 0, 80, 60]], [0, 1], 60, 80)
    mirrored = mirror_record(record)
    assert mirrored.boxes.tolist() == [[50, 5, 80, 25], [0, 0, 10, 60]]
    assert (mirrored.labels.tolist(), mirrored.boxes.dtype) == ([0, 1], np.float32)
    np.testing.assert_array_equal(mirror_record(mirrored).boxes, record.boxes)


class TestReadAhead:
    def draw(self, step):
        return [ImageDraw(10 * step + part, False, 2 * step + part) for part in range(2)]

    def test_steps_come_with_the_inputs_of_their_images(self):
        batches = read_ahead(self.draw, lambda samples: (f"input {sample.number}" for sample in samples), 2)
        for first in (0, 3):
            steps = list(itertools.islice(batches(first), 4))
            assert steps == [
                [(sample, f"input {sample.number}") for sample in self.draw(step)] for step in range(first, first + 4)
            ]

    def test_each_turn_has_a_light_of_its_own_whatever_the_first_step(self):
        def inputs(samples):
            return (MapInput(np.full((2, 2, 3), sample.number, np.uint8), None, SCALING) for sample in samples)

        def lights(seed, first, steps=3):
            batches = itertools.islice(read_ahead(self.draw, inputs, 2, seed)(first), steps)
            pairs = [(sample.number, map_input) for sample, map_input in itertools.chain.from_iterable(batches)]
            assert [number for number, _ in pairs] == [map_input.pixels[0, 0, 0] for number, map_input in pairs]
            return [map_input.light and np.concatenate(map_input.light).tolist() for _, map_input in pairs]

        drawn = lights(5, 0)
        gain, offset = draw_light(make_generator(5, "light", 3), 1)
        assert drawn[3] == [*gain[0].tolist(), *offset[0].tolist()]
        assert len({tuple(light) for light in drawn}) == 6
        assert lights(5, 1, 2) == drawn[2:]
        assert lights(6, 0) != drawn
        assert lights(None, 0) == [None] * 6

    def test_an_error_in_reading_is_raised_at_its_step_and_the_thread_ends(self):
        def inputs(samples):
            for sample in samples:
                if sample.number == 20:
                    raise OSError("broken.jpg")
                yield sample.number

        steps = read_ahead(self.draw, inputs, 2)(0)
        assert [[number for _, number in batch] for batch in itertools.islice(steps, 2)] == [[0, 1], [10, 11]]
        with pytest.raises(OSError, match=r"broken\.jpg"):
            next(steps)
        assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


class TestMaps:
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_of_pixels_is_the_trunks(self, mirrored):
        torch.manual_seed(0)
        backbone = make_backbone("tiny")
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        with torch.no_grad():
            values = map_of(backbone, MapInput(pixels, None, SCALING), mirrored, CPU, "float32")
            torch.testing.assert_close(values, conv_map(backbone, pixels, SCALING, CPU, mirror=mirrored), rtol=0, atol=0)
            flipped = conv_map(backbone, np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels, SCALING, CPU)
        torch.testing.assert_close(values, flipped, rtol=1e-4, atol=1e-4)

    def test_of_pixels_is_the_trunks_in_the_light(self):
        backbone, light = make_backbone("tiny"), (np.float32([-1, 1.5, 0.5]), np.float32([0.1, 0.2, -0.3]))
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        with torch.no_grad():
            values = map_of(backbone, MapInput(pixels, None, SCALING, light), True, CPU, "float32")
            expected = backbone.trunk(image_tensor(pixels, SCALING, backbone.view, CPU, mirror=True, light=light))[0]
        torch.testing.assert_close(values, expected, rtol=0, atol=0)

    @pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
    def test_that_is_cached_is_turned_to_channels_rows_columns(self, precision, dtype):
        cells = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float16)
        for mirrored in (False, True):  # the cached map of a mirrored image is that of the mirror
            values = map_of(None, MapInput(None, cells, SCALING), mirrored, CPU, precision)
            assert values.dtype == dtype
            np.testing.assert_allclose(values.float(), cells.transpose(2, 0, 1), rtol=0 if precision == "float32" else 1e-2)
