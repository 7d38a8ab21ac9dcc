import subprocess
import sys

PROGRAM = """
from rare_unet_networks.bundle.logs import drop_repeated_errors
drop_repeated_errors()
from ignite.engine import Engine
from monai.handlers import StatsHandler
engine = Engine(lambda engine, batch: {"loss": 1.5})
handler = StatsHandler(iteration_log=False, epoch_print_logger=lambda engine: handler.logger.info("Dice 0.5"))
handler.attach(engine)
engine.run([0])
"""


def test_a_program_that_drops_repeated_errors_still_prints_what_is_validated():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Dice 0.5" in result.stdout
