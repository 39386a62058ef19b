package saga

import "context"

// Store is where Once keeps its marks: a table with a unique key, in the same database as the work that it guards.
type Store interface {
	// Insert adds a key, within the same local transaction as the work, and tells whether it was new. What is rolled back
	// was never inserted.
	Insert(ctx context.Context, key string) (inserted bool, err error)
}

// Once calls f at the service that a step or a compensation reaches, if it is to happen: a barrier against the three
// ways in which repeated and late calls go wrong.
//
//   - Idempotence: a step or a compensation that has happened does not happen again.
//   - Null compensation: a compensation whose step never arrived does nothing.
//   - Hanging: a step that arrives after its compensation does nothing.
//
// Call it within a local transaction of the store, which the caller commits if Once returns nil and rolls back if not; f's
// error is returned. The transactions of one step and its compensation must be serializable, as a unique key makes
// them. Once is safe for concurrent use if the Store is.
func Once(ctx context.Context, store Store, call Call, f func(context.Context) error) error {
	// The compensation takes the step's own mark too: who finds it free knows that the step has not happened, and whoever
	// comes later finds it taken.
	first, err := store.Insert(ctx, call.key(false))
	if err != nil {
		return err
	}
	if !call.Undo {
		if !first {
			return nil
		}
		return f(ctx)
	}
	fresh, err := store.Insert(ctx, call.key(true))
	if err != nil || first || !fresh {
		return err
	}
	return f(ctx)
}
