package swim

// Plain returns the Config of SWIM as it was before Lifeguard, for comparison.
func Plain(cfg Config) Config {
	cfg.plain = true
	return cfg
}

// LeastSuspicion is how long a suspicion lasts at least, in the view of the core.
func (c *Core) LeastSuspicion() int64 { return c.leastSuspicion() }
