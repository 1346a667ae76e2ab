"""``kvar.commands.main`` under the name of before."""

from kvar.commands.main import main as main
