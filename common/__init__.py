"""What every folder may use: keys, timeframes, UTC moments, atomic files. Imports nothing of ours."""
