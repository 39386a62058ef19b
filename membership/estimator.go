package membership

import "time"

// Estimator judges one peer by the times of its heartbeats: package phi has several. It is not safe for concurrent use.
type Estimator interface {
	// Heartbeat tells of a heartbeat that arrived.
	Heartbeat(at time.Time)
	// Level is how suspicious the silence is: from 0, and 1 or more when the peer is suspected. It is 0 before the first
	// heartbeat.
	Level(at time.Time) float64
	// Deadline is when Level comes to 1 if no heartbeat comes before; zero before the first one.
	Deadline() time.Time
}
