"""One module for each group of hypotheses. May import models, truth and numerics; not report or judging."""
