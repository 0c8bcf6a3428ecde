package admin

import (
	"context"
	"errors"
	"strings"
	"testing"

	"custode/internal/fault"
)

func TestJobs(t *testing.T) {
	var jobs Jobs
	hold := make(chan struct{})
	path := serve(t, map[string]Method{
		"state": jobs.State,
		"quick": func(ctx context.Context, _ []byte) (any, error) {
			return jobs.Start(ctx, func(context.Context) (any, error) { return map[string]int{"n": 7}, nil })
		},
		"bad": func(ctx context.Context, _ []byte) (any, error) {
			return jobs.Start(ctx, func(context.Context) (any, error) { return nil, fault.New(fault.Conflict, "work", errors.New("no")) })
		},
		"slow": func(ctx context.Context, _ []byte) (any, error) {
			return jobs.Start(ctx, func(context.Context) (any, error) { <-hold; return nil, nil })
		},
	})
	if got, err := Await(path, "quick", "state", nil); err != nil || !strings.Contains(string(got), `"n":7`) {
		t.Errorf("%s, %v", got, err)
	}
	if err := Call(path, "state", jobArgument{1}, nil); !fault.Is(err, fault.NotFound) || jobs.byNo[1] != nil {
		t.Errorf("a result that was told is still there: %v", err)
	}
	if _, err := Await(path, "bad", "state", nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("a job that failed: %v", err)
	}
	if err := Call(path, "slow", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Await(path, "quick", "state", nil); !fault.Is(err, fault.Busy) {
		t.Errorf("two at once: %v", err)
	}
	close(hold)
	if err := Call(path, "state", jobArgument{99}, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such job: %v", err)
	}
}
