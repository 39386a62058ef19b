package consensus

// LoseSessions plants a bug: snapshots lack the table of sessions.
func LoseSessions(c *Config) { c.bug = bugSnapshotWithoutSessions }
