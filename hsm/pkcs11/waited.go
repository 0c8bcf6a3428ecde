package pkcs11

import (
	"context"
	"errors"
	"fmt"

	"custode/internal/fault"
)

// inCall names the PKCS #11 function that failed.
func inCall(function string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", function, err)
}

// waited turns the end of a context into an error of the house.
func waited(op string, ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New(fault.Exhausted, op, ctx.Err())
	}
	return fault.New(fault.Unavailable, op, ctx.Err())
}
