"""`saematch run`: a suite matched pair by pair."""
