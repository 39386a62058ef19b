// Package saga runs long pieces of work in steps, each of which commits at once, and undoes what was done if a step
// fails: durable orchestrated sagas on a coterie.Journal, which go on after a crash where they were.
//
// Paper: Garcia-Molina and Salem, "Sagas", ACM SIGMOD 1987; backward recovery by compensation (section 5), parallel steps
// (section 7). The barrier Once follows the sub-transaction barrier of dtm (github.com/dtm-labs/dtm).
//
// Use it for work that crosses services which hold no locks for each other: book a flight, a hotel and a car, or none. Do
// not use it where others must not see the steps between; that is what package twophase is for.
//
// # Guarantees
//
//   - Once Begin or Run has noted a saga, it ends fully done or fully compensated, through any number of crashes, as soon
//     as its steps and compensations succeed. A compensation that goes on failing makes it Stuck, which Status shows;
//     Retry and every restart try again.
//   - Each step and each compensation is called at least once, and again after a crash that hid its answer: they must be
//     idempotent, by Call.Key or by Once.
//   - Compensations run in the reverse order of the steps; those of parallel steps in parallel.
//   - No step begins once a saga compensates, and no compensation begins while a step still runs.
//   - A step whose outcome is not known (a timeout, an error, a crash) is compensated too. Only a step that says by Refuse
//     that nothing happened, at its first try, is not.
//   - Retries are bounded in number and pause longer each time.
//
// # Costs
//
// A saga of n steps that succeeds takes n+1 forced writes: one before its first step, one after each. One that fails after
// k steps takes one for the failure and one for each compensation. Sagas that run at the same time share syncs.
//
// # Fault model
//
// The process crashes at any moment and comes back with its journal and the same definitions. Steps may do their work and
// fail to say so, and may be late: Once keeps a step that arrives after its own compensation from happening.
package saga
