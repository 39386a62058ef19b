package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/internal/wire"
	"github.com/coterie-go/coterie/transport/rpc"
)

// The methods by which Serve and Client speak to each other, by verb. Requests and answers are bytes.
var methods = [...]string{
	verbPropose: "consensus/propose", // format, session, seq and low, which are 0 without a session, and the command
	verbRead:    "consensus/read",    // the query
	verbOpen:    "consensus/open",    // answered by the session's id as decimal digits, as over HTTP
	verbEnd:     "consensus/end",     // the session's id likewise
	verbStatus:  "consensus/status",  // answered by coterie.Status as JSON
}

// codeExpired is the code of ErrSessionExpired.
const codeExpired = rpc.FirstAppCode

// Serve gives a replica to clients that Dial makes: it registers the methods consensus/propose, read, open, end and
// status with the server. A server serves one replica, beside methods of others. Who may call may do all that the
// replica can: give the server an Identity. Commands, queries and results may have as many bytes as
// rpc.ServerConfig.MaxMessage allows, less a few; the default of ServerConfig.Codec must not be changed.
//
// It panics if the server serves a replica already.
func Serve(server *rpc.Server, replica Replica) {
	handle := func(v verb, fn func(ctx context.Context, body []byte) ([]byte, error)) {
		rpc.Handle(server, methods[v], func(ctx context.Context, body []byte) ([]byte, error) {
			result, err := fn(ctx, body)
			if errors.Is(err, ErrSessionExpired) && !errors.Is(err, coterie.ErrUnknownOutcome) {
				err = &rpc.Error{Code: codeExpired, Message: err.Error()}
			}
			return result, err
		})
	}
	handle(verbPropose, func(ctx context.Context, body []byte) ([]byte, error) {
		tag, command, err := decodeProposal(body)
		switch {
		case err != nil:
			return nil, &rpc.Error{Code: rpc.BadRequest, Message: err.Error(), NotRun: true}
		case tag == Tag{}:
			return replica.Propose(ctx, command)
		}
		return replica.ProposeAs(ctx, tag, command)
	})
	handle(verbRead, replica.Read)
	handle(verbOpen, func(ctx context.Context, _ []byte) ([]byte, error) {
		id, err := replica.OpenSession(ctx)
		return strconv.AppendUint(nil, id, 10), err
	})
	handle(verbEnd, func(ctx context.Context, body []byte) ([]byte, error) {
		id, err := strconv.ParseUint(string(body), 10, 64)
		if err != nil {
			return nil, &rpc.Error{Code: rpc.BadRequest, Message: fmt.Sprintf("session %q is not a number", body), NotRun: true}
		}
		return nil, replica.EndSession(ctx, id)
	})
	handle(verbStatus, func(context.Context, []byte) ([]byte, error) { return json.Marshal(replica.Status()) })
}

// proposalFormat is the first byte of a proposal's request.
const proposalFormat = 1

func appendProposal(b []byte, tag Tag, command []byte) []byte {
	b = append(b, proposalFormat)
	b = wire.AppendUvarint(wire.AppendUvarint(wire.AppendUvarint(b, tag.Session), tag.Seq), tag.Low)
	return append(b, command...)
}

func decodeProposal(b []byte) (tag Tag, command []byte, err error) {
	r := wire.NewReader(b)
	if format := r.Byte(); r.Err() == nil && format > proposalFormat {
		return Tag{}, nil, &coterie.FormatError{What: "proposal", Got: format, Max: proposalFormat}
	} else if r.Err() == nil && format < proposalFormat {
		r.Fail("format %d", format)
	}
	tag = Tag{Session: r.Uvarint(), Seq: r.Uvarint(), Low: r.Uvarint()}
	if tag != (Tag{}) && (tag.Session == 0 || tag.Low == 0 || tag.Low > tag.Seq) {
		r.Fail("command %d of session %d, with %d the oldest", tag.Seq, tag.Session, tag.Low)
	}
	if err := r.Err(); err != nil {
		return Tag{}, nil, fmt.Errorf("consensus: proposal: %w", err)
	}
	return tag, r.Rest(), nil
}

// makeRPC makes a client of each replica whose address is no URL. They connect when they are asked.
func (c *Client) makeRPC() error {
	c.rpc = make(map[coterie.NodeID]*rpc.Client)
	for id, addr := range c.cfg.Addrs {
		if strings.Contains(addr, "://") {
			continue
		}
		cfg := rpc.ClientConfig{
			Addr: addr, ID: c.cfg.ID, Identity: c.cfg.Identity, MaxMessage: maxRequest, DialTimeout: c.cfg.TryTimeout,
		}
		if cfg.Identity != nil {
			cfg.Peer = id
		}
		client, err := rpc.NewClient(cfg)
		if err != nil {
			for _, made := range c.rpc {
				_ = made.Close() // it has no error
			}
			return fmt.Errorf("consensus: ClientConfig: replica %s: %w", id, err)
		}
		c.rpc[id] = client
	}
	return nil
}

// askRPC makes one request to one node that Serve serves. It is tried once: what may be tried again is for the Client
// to know.
func askRPC(ctx context.Context, remote *rpc.Client, node coterie.NodeID, a ask) ([]byte, error) {
	body := a.body
	switch a.verb {
	case verbPropose:
		body = appendProposal(make([]byte, 0, 24+len(body)), a.tag, body)
	case verbEnd:
		body = strconv.AppendUint(nil, a.id, 10)
	default:
	}
	answer, err := rpc.Call[[]byte, []byte](ctx, remote, methods[a.verb], body)
	if err == nil {
		return answer, nil
	}
	failure := (*rpc.Error)(nil)
	switch errors.As(err, &failure); {
	case errors.Is(err, coterie.ErrUnknownOutcome), errors.Is(err, coterie.ErrNotLeader):
	case failure != nil && failure.Code == codeExpired:
		err = fmt.Errorf("%w (%w)", ErrSessionExpired, err)
	case failure != nil && failure.Code == rpc.Unavailable, errors.Is(err, rpc.ErrUnreachable):
		// Another replica may stand in for one that is closed. That the Client is not closed itself must show.
		err = fmt.Errorf("%w: %s", errUnreachable, err.Error())
	case failure != nil && !failure.NotRun && ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", coterie.ErrUnknownOutcome, err) // the replica gave up when we did
	}
	return nil, fmt.Errorf("consensus: %s: %w", node, err)
}
