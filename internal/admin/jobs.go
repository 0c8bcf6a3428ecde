package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"custode/internal/fault"
)

// Jobs are administrative works that may take longer than a caller waits. One
// runs at a time. The zero value is ready.
type Jobs struct {
	mu   sync.Mutex
	last int
	byNo map[int]*job
}

type job struct {
	done   bool
	result any
	err    error
}

// keptJobs is how many ended jobs can still be asked about.
const keptJobs = 16

type jobArgument struct {
	Job int `json:"job"`
}

type jobState struct {
	Done   bool            `json:"done"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Start runs work unless another runs: fault.Busy. The result is for Await.
func (j *Jobs) Start(ctx context.Context, work func(context.Context) (any, error)) (any, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if last := j.byNo[j.last]; last != nil && !last.done {
		return nil, fault.Newf(fault.Busy, "start an administrative job", "job %d is not done", j.last)
	}
	if j.byNo == nil {
		j.byNo = map[int]*job{}
	}
	j.last++
	delete(j.byNo, j.last-keptJobs)
	one := &job{}
	j.byNo[j.last] = one
	go func() {
		result, err := work(ctx)
		j.mu.Lock()
		defer j.mu.Unlock()
		one.done, one.result, one.err = true, result, err
	}()
	return jobArgument{j.last}, nil
}

// State is the Method by which Await asks; the error of a job is its own.
func (j *Jobs) State(_ context.Context, arg []byte) (any, error) {
	var in jobArgument
	dec := json.NewDecoder(bytes.NewReader(arg))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fault.New(fault.Invalid, "read the number of a job", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	one := j.byNo[in.Job]
	switch {
	case one == nil:
		return nil, fault.Newf(fault.NotFound, "ask for a job", "no job %d", in.Job)
	case !one.done:
		return jobState{}, nil
	case one.err != nil:
		return nil, one.err
	}
	delete(j.byNo, in.Job) // told once, it is forgotten
	text, err := json.Marshal(one.result)
	return jobState{Done: true, Result: text}, err
}

// Await calls a method that starts a job, waits for the job's end and returns its
// result. state is the name of the method that is Jobs.State.
func Await(path, method, state string, arg any) (json.RawMessage, error) {
	var started jobArgument
	if err := Call(path, method, arg, &started); err != nil {
		return nil, err
	}
	for {
		var st jobState
		if err := Call(path, state, started, &st); err != nil {
			return nil, err
		}
		if st.Done {
			return st.Result, nil
		}
		time.Sleep(200 * time.Millisecond)
	}
}
