package ricart

// receiveRequest is the paper's process which receives requests: the answer is put off if this node is in, or has
// asked earlier. A repeated or late request is answered like a new one, for its sender takes no answer but that to
// what it asks for now.
func (c *Core) receiveRequest(place int, m message) {
	c.advance(m.time) // this node's next request is later than what it answers, also after a restart
	r := c.names[m.name]
	if r != nil && (r.held || c.earlier(r, m.time, place)) {
		r.deferred[place] = max(r.deferred[place], m.time)
		return
	}
	c.reply(place, m.name, m.time)
}

// earlier reports whether this node's request precedes one of another node.
func (c *Core) earlier(r *request, time uint64, place int) bool {
	return r.time < time || r.time == time && c.self < place
}

func (c *Core) reply(place int, name string, time uint64) {
	c.out.Send(c.peers[place], message{kind: kindReply, name: name, time: time}.encode())
}

// receiveReply is the paper's process which receives replies. One to a request of before, taken back or forgotten in
// a crash, has another time.
func (c *Core) receiveReply(place int, m message) {
	r := c.names[m.name]
	if r == nil || r.held || r.answered[place] || r.time != m.time && !c.bugs.anyTime {
		return
	}
	r.answered[place] = true
	r.missing--
	if r.missing == 0 {
		c.enter(r)
	}
}
