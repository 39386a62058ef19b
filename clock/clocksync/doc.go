// Package clocksync estimates how far one's clock is off, by asking others: Cristian's algorithm for one server, the
// Berkeley algorithm for a group without one, and NTP's client for many servers of which some lie.
//
// All are state machines without I/O: Cristian and Berkeley are coterie.Cores, NTP is an Association per server whose
// packets the caller carries by UDP. What they find goes two ways: into a clock.IntervalClock by Sample.Interval or
// Marzullo, which gives bounds, or into a Slew, which turns the clock without ever stepping it back.
//
// # Which one?
//
//	Cristian     one trusted server; error at most half the round trip       Cristian 1989
//	Berkeley     no server: nodes agree with each other, not with UTC        Gusella and Zatti 1989
//	NTP          several servers, a minority of them wrong                   RFC 5905
//
// # Guarantees
//
// A Sample's interval contains the true offset if the server's clock is right to within the dispersion it states and
// the local clock ran evenly during the exchange: however asymmetric the delay is, it lies between 0 and the whole
// round trip. Marzullo's interval contains it if no more servers lie than stated. Berkeley tolerates clocks that are
// far off as long as they are fewer than the others, but bounds nothing. None of them authenticates: whoever can forge
// packets can set the clock, unless the transport or NTP's MAC prevents it.
package clocksync
