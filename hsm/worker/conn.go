package worker

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"custode/hsm/worker/socket"
	"custode/internal/fault"
)

// conn is one connection to one worker process, for many callers.
type conn struct {
	nc       net.Conn
	instance string
	write    sync.Mutex
	dead     chan struct{} // closed when the connection is lost

	mu      sync.Mutex
	next    uint32
	pending map[uint32]chan answer
	lost    bool
}

// answer is a frame that the receiver wipes, and what it says.
type answer struct {
	message
	frame []byte
}

// errLost is the cause when a connection ended before the answer came: the call may be repeated.
var errLost = errors.New("the connection to the worker was lost")

// greet reads the worker's hello, which comes when its token is open, at most so long.
func greet(ctx context.Context, nc net.Conn, limit time.Duration) (*conn, error) {
	const op = "greet the worker"
	stop := context.AfterFunc(ctx, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = nc.SetReadDeadline(time.Now().Add(limit))
	frame, err := readFrame(nc)
	if err != nil {
		return nil, fault.Newf(fault.Unavailable, op, "%w: %w", errLost, err)
	}
	m, err := decode(frame)
	if err != nil {
		return nil, fault.New(fault.Fatal, op, err)
	}
	if Operation(m.code) != opHello || m.call != 0 || len(m.fields) != 1 || len(m.fields[0]) != 16 {
		return nil, fault.New(fault.Fatal, op, errFrame)
	}
	if !stop() {
		return nil, fault.New(fault.Unavailable, op, ctx.Err())
	}
	if err := nc.SetReadDeadline(time.Time{}); err != nil {
		return nil, fault.New(fault.Unavailable, op, err)
	}
	k := &conn{nc: nc, instance: string(m.fields[0]), dead: make(chan struct{}), pending: map[uint32]chan answer{}}
	go k.read()
	return k, nil
}

// read hands answers out until the connection ends.
func (k *conn) read() {
	in := socket.Frames{R: k.nc, Max: maxFrame}
	for {
		frame, err := in.Next()
		if err != nil {
			break
		}
		m, err := decode(frame)
		if err != nil {
			break
		}
		k.mu.Lock()
		c := k.pending[m.call]
		delete(k.pending, m.call)
		k.mu.Unlock()
		if c == nil { // nobody waits any more
			clear(frame)
			continue
		}
		c <- answer{m, frame}
	}
	k.close()
}

// close ends the connection; every caller is told.
func (k *conn) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost {
		return
	}
	k.lost = true
	close(k.dead)
	_ = k.nc.Close()
}

// ask sends a question and waits for its answer or for ctx, which must have a deadline. The error is
// the worker's, wraps errLost, or is ctx's.
func (k *conn) ask(ctx context.Context, q message) (answer, error) {
	c := make(chan answer, 1)
	end, _ := ctx.Deadline()
	q.wait = min(time.Until(end), maxWait)
	if ctx.Err() != nil {
		return answer{}, ctx.Err()
	}
	if q.wait <= 0 {
		return answer{}, context.DeadlineExceeded
	}
	k.mu.Lock()
	if k.lost {
		k.mu.Unlock()
		return answer{}, errLost
	}
	k.next++
	if k.next == 0 { // 0 is the hello's
		k.next = 1
	}
	q.call = k.next
	k.pending[q.call] = c
	k.mu.Unlock()
	frame, err := q.encode()
	if err != nil {
		k.forget(q.call)
		return answer{}, err
	}
	k.write.Lock()
	_ = k.nc.SetWriteDeadline(time.Now().Add(writeLimit))
	_, err = k.nc.Write(frame)
	k.write.Unlock()
	clear(frame)
	if err != nil {
		k.close()
		return answer{}, errLost
	}
	select {
	case a := <-c:
		return a, a.refused()
	case <-k.dead:
		select {
		case a := <-c: // it came before the end
			return a, a.refused()
		default:
			return answer{}, errLost
		}
	case <-ctx.Done():
		k.forget(q.call)
		select {
		case a := <-c: // just too late
			clear(a.frame)
		default:
		}
		return answer{}, ctx.Err()
	}
}

func (k *conn) forget(call uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pending, call)
}
