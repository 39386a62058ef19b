package coterie

import "time"

// Outbox collects a core's effects until the core's Ready returns them with Take. It alternates two sets of slices,
// so that a steady core allocates none. The zero value is ready to use. It is not safe for concurrent use.
type Outbox struct {
	batch, spare Ready
}

// Send adds a message that leaves when the batch's Save is durable. One to the node itself comes back to Step.
func (o *Outbox) Send(to NodeID, payload []byte) {
	o.batch.Send = append(o.batch.Send, Envelope{To: to, Payload: payload})
}

// SendEarly adds a message that promises nothing that rests on a Save still under way, so that it need not wait.
func (o *Outbox) SendEarly(to NodeID, payload []byte) {
	o.batch.Send = append(o.batch.Send, Envelope{To: to, Payload: payload, Early: true})
}

// Save adds a record to make durable before the batch's messages and events leave.
func (o *Outbox) Save(record []byte) {
	o.batch.Save = append(o.batch.Save, record)
	if o.batch.Keep > 0 {
		o.batch.Keep++
	}
}

// Keep allows all but the newest records to be forgotten, counted back from the last one saved so far; what the
// batch saves later is kept too. newest must be positive.
func (o *Outbox) Keep(newest int) {
	if newest <= 0 {
		panic("coterie: Outbox.Keep of no record")
	}
	o.batch.Keep = newest
}

// Emit adds an event for the application.
func (o *Outbox) Emit(event any) { o.batch.Events = append(o.batch.Events, event) }

// Wake asks for a Tick at a time; of several in a batch the earliest counts, and zero asks for nothing. Each batch
// asks anew.
func (o *Outbox) Wake(at time.Time) {
	if !at.IsZero() && (o.batch.Wake.IsZero() || at.Before(o.batch.Wake)) {
		o.batch.Wake = at
	}
}

// Empty reports whether the batch holds nothing to save, send or emit.
func (o *Outbox) Empty() bool {
	return len(o.batch.Save) == 0 && len(o.batch.Send) == 0 && len(o.batch.Events) == 0
}

// Take returns the batch and starts the next one. The slices of the batch returned before are used again.
func (o *Outbox) Take() Ready {
	taken := o.batch
	clear(o.spare.Save)
	clear(o.spare.Send)
	clear(o.spare.Events)
	o.batch = Ready{Save: o.spare.Save[:0], Send: o.spare.Send[:0], Events: o.spare.Events[:0]}
	o.spare = taken
	return taken
}
