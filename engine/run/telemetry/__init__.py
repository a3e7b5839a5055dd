"""What a run tells: its events, the journal they stand in, and their fold into the state that every view shows."""
