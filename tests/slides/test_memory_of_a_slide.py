"""What a slide that has ended still costs: a service goes through hundreds, and the last one is kept to be looked at."""

from __future__ import annotations

import gc
import shutil
import threading
import tracemalloc
import weakref

from deblurd.deblur.model import find_model
from deblurd.pipeline import SlidePipeline, make_deblurrer
from deblurd.resume import recorded, settings_of
from deblurd.slides.folder import SlideFolder

MOST_BYTES = 6_000_000
"""A few weights of a tile, and what is known of each; not its pixels, nor coarse shards of the mosaic."""


def test_a_slide_that_has_ended_gives_its_memory_and_threads_back(slide: SlideFolder) -> None:
    shutil.rmtree(slide.mosaic)
    camera, *_ = recorded(slide, is_done=True)
    settings = settings_of(slide, slide.read_manifest(), "raw", None)
    with make_deblurrer(find_model("raw"), camera, settings.deblur) as deblurrer:
        threads = set(threading.enumerate())
        gc.collect()
        # dead circles would wait for a collector that hardly ever looks at old ones
        gc.disable()
        tracemalloc.start()
        try:
            pipeline = SlidePipeline(slide, camera, deblurrer, settings)
            pipeline.again(without=())
            assert pipeline.finish().failure is None
            held, most = tracemalloc.get_traced_memory()
            assert pipeline.centres_um
            still = weakref.ref(pipeline)
            del pipeline
            assert still() is None
        finally:
            tracemalloc.stop()
            gc.enable()
    assert most > 2 * MOST_BYTES
    assert held < MOST_BYTES
    left = {thread.name.split("_")[0] for thread in threading.enumerate() if thread not in threads}
    assert not any(name.startswith("deblurd") for name in left - {"deblurd-deblur-worker"})
