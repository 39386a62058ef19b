package lock

import (
	"time"

	"github.com/coterie-go/coterie"
)

// PeerCore is an algorithm of mutual exclusion among peers, without a server: the Core of packages ricart, maekawa,
// tokenring, suzuki and centralized. It keeps each name apart from the others. Request and Release are typed calls;
// Entered and Forfeited are its events.
type PeerCore interface {
	coterie.Core
	// Request asks for a name, for this node. The answer is Entered, once, unless Release comes first. There is one
	// request or holding of a name at a time; a second one does nothing.
	Request(now time.Time, name string)
	// Release leaves a name that was entered, or takes back a request that was not answered. Of one that is neither
	// it does nothing.
	Release(now time.Time, name string)
}

// Entered is an event of a PeerCore: the node holds the name until it releases it. It is told at the end of a batch, and
// only of what is still held then: never of an entry that the same batch released.
type Entered struct {
	Name  string
	Token uint64 // larger than that of every earlier holder of the name, but for what the package says of lost tokens
}

// Forfeited is an event of a PeerCore: the node holds the name no more, or cannot know that it does, though it did not
// release it. A node that has lost what it remembered in a crash holds nothing, and is not told.
type Forfeited struct {
	Name string
}
