package twophase_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/coterie-go/coterie"
	"github.com/coterie-go/coterie/transport"
	"github.com/coterie-go/coterie/transport/host"
	"github.com/coterie-go/coterie/txn"
	"github.com/coterie-go/coterie/txn/twophase"
)

// A transfer between the banks of two nodes happens at both or at none. In production the transport is one of
// package tcp and the journal a stream of a wal.Log.
func Example() {
	ctx := context.Background()
	net := transport.NewNetwork(transport.NetworkConfig{})
	banks := map[coterie.NodeID]*bank{"paris": newBank(map[string]int{"ada": 50}), "rome": newBank(map[string]int{"bob": 0})}
	nodes := map[coterie.NodeID]*twophase.Node{}
	for id, b := range banks {
		node, err := twophase.Start(twophase.Config{ID: id, Transport: net.Join(id), Journal: &host.MemoryJournal{}, Resource: b})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer node.Close()
		nodes[id] = node
	}
	for _, amount := range []int{30, 40} {
		err := nodes["paris"].Run(ctx, []coterie.NodeID{"paris", "rome"}, func(_ context.Context, id txn.ID) error {
			return errors.Join(banks["paris"].Add(id, "ada", -amount), banks["rome"].Add(id, "bob", amount))
		})
		fmt.Println(errors.Is(err, txn.ErrAborted), err)
		_ = nodes["paris"].Settle(ctx)
	}
	fmt.Println(banks["paris"].total(), banks["rome"].total())
	// Output:
	// false <nil>
	// true twophase: paris/1/2 aborted by paris: bank: "ada" would be overdrawn
	// 20 30
}

// Database adapts a database that has PREPARE TRANSACTION, such as PostgreSQL, to a txn.Participant. Work is done in
// a *sql.Tx on a connection of its own; Prepare takes the transaction off the connection.
type Database struct {
	db    *sql.DB
	conns map[txn.ID]*sql.Conn // a real one guards it by a mutex
}

// Work runs a statement within the transaction.
func (d *Database) Work(ctx context.Context, id txn.ID, query string, args ...any) error {
	conn := d.conns[id]
	if conn == nil {
		var err error
		if conn, err = d.db.Conn(ctx); err != nil {
			return err
		}
		if _, err = conn.ExecContext(ctx, "BEGIN"); err != nil {
			return errors.Join(err, conn.Close())
		}
		d.conns[id] = conn
	}
	_, err := conn.ExecContext(ctx, query, args...)
	return err
}

// Prepare makes the work durable and detaches it from its connection.
func (d *Database) Prepare(ctx context.Context, id txn.ID) (txn.Vote, error) {
	conn := d.conns[id]
	if conn == nil {
		prepared, err := d.isPrepared(ctx, id)
		if err != nil || !prepared {
			return txn.No, errors.Join(err, txn.ErrUnknown)
		}
		return txn.Yes, nil // asked again
	}
	if _, err := conn.ExecContext(ctx, "PREPARE TRANSACTION '"+quote(id)+"'"); err != nil {
		return txn.No, err
	}
	delete(d.conns, id)
	return txn.Yes, conn.Close()
}

// Commit ends a prepared transaction. One that is not there was committed before.
func (d *Database) Commit(ctx context.Context, id txn.ID) error {
	return d.end(ctx, id, "COMMIT PREPARED '")
}

// Abort undoes work, prepared or not.
func (d *Database) Abort(ctx context.Context, id txn.ID) error {
	if conn := d.conns[id]; conn != nil {
		delete(d.conns, id)
		_, err := conn.ExecContext(ctx, "ROLLBACK")
		return errors.Join(err, conn.Close())
	}
	return d.end(ctx, id, "ROLLBACK PREPARED '")
}

func (d *Database) end(ctx context.Context, id txn.ID, statement string) error {
	prepared, err := d.isPrepared(ctx, id)
	if err != nil || !prepared {
		return err
	}
	_, err = d.db.ExecContext(ctx, statement+quote(id)+"'")
	return err
}

func (d *Database) isPrepared(ctx context.Context, id txn.ID) (bool, error) {
	var n int
	err := d.db.QueryRowContext(ctx, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1", string(id)).Scan(&n)
	return n > 0, err
}

func quote(id txn.ID) string { return strings.ReplaceAll(string(id), "'", "''") }

// A database with PREPARE TRANSACTION takes part through an adapter of three statements.
func ExampleStart_database() {
	ctx := context.Background()
	db := sql.OpenDB(&fakePostgres{prepared: map[string]bool{}})
	defer db.Close()
	database := &Database{db: db, conns: map[txn.ID]*sql.Conn{}}
	var resource txn.Participant = database

	net := transport.NewNetwork(transport.NetworkConfig{})
	node, err := twophase.Start(twophase.Config{ID: "db1", Transport: net.Join("db1"), Journal: &host.MemoryJournal{}, Resource: resource})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	err = node.Run(ctx, []coterie.NodeID{"db1"}, func(ctx context.Context, id txn.ID) error {
		return database.Work(ctx, id, "UPDATE accounts SET balance = balance - $1", 5)
	})
	fmt.Println(err, node.Settle(ctx))
	// Output:
	// BEGIN
	// UPDATE accounts SET balance = balance - $1 [5]
	// PREPARE TRANSACTION 'db1/1/1'
	// COMMIT PREPARED 'db1/1/1'
	// <nil> <nil>
}

// fakePostgres prints the statements it is sent, and knows what is prepared.
type fakePostgres struct{ prepared map[string]bool }

func (f *fakePostgres) Connect(context.Context) (driver.Conn, error) { return fakeConn{f}, nil }
func (f *fakePostgres) Driver() driver.Driver                        { return nil }

type fakeConn struct{ *fakePostgres }

func (fakeConn) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not here") }
func (fakeConn) Begin() (driver.Tx, error)           { return nil, errors.New("not here") }
func (fakeConn) Close() error                        { return nil }

func (c fakeConn) ExecContext(_ context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	fmt.Print(query)
	for _, a := range args {
		fmt.Print(" [", a.Value, "]")
	}
	fmt.Println()
	statement, rest, _ := strings.Cut(query, " '")
	switch id := strings.TrimSuffix(rest, "'"); statement {
	case "PREPARE TRANSACTION":
		c.prepared[id] = true
	case "COMMIT PREPARED", "ROLLBACK PREPARED":
		delete(c.prepared, id)
	}
	return driver.RowsAffected(1), nil
}

func (c fakeConn) QueryContext(_ context.Context, _ string, args []driver.NamedValue) (driver.Rows, error) {
	n := int64(0)
	if c.prepared[args[0].Value.(string)] {
		n = 1
	}
	return &fakeRows{[]int64{n}}, nil
}

type fakeRows struct{ left []int64 }

func (*fakeRows) Columns() []string { return []string{"count"} }
func (*fakeRows) Close() error      { return nil }

func (r *fakeRows) Next(dest []driver.Value) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	dest[0], r.left = r.left[0], nil
	return nil
}
