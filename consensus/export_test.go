package consensus

// LoseSessions plants a bug: snapshots lack the table of sessions.
func (c *Config) LoseSessions() { c.bug = bugSnapshotWithoutSessions }
