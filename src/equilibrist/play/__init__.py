"""Pictures of games: fields, trajectories, basins, spectra."""
