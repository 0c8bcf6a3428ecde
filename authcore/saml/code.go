package saml

// Code numbers the rows of the SPID table of messages of anomaly (manual,
// Appendix A; technical rules). 1 is success.
type Code uint8

// The codes an authentication can end with.
const (
	Success             Code = 1
	SystemUnavailable   Code = 2
	SystemError         Code = 3
	BadBinding          Code = 4
	BadRedirectSig      Code = 5
	WrongMethod         Code = 6
	BadPostSig          Code = 7
	NotConformant       Code = 8
	BadVersion          Code = 9
	BadIssuer           Code = 10
	BadID               Code = 11
	BadAuthnContext     Code = 12
	BadIssueInstant     Code = 13
	BadDestination      Code = 14
	Passive             Code = 15
	BadACS              Code = 16
	BadNameIDPolicy     Code = 17
	BadAttributeService Code = 18
	TooManyAttempts     Code = 19
	NoCredentials       Code = 20
	TimedOut            Code = 21
	ConsentRefused      Code = 22
	NotActive           Code = 23
	Cancelled           Code = 25
	WrongIdentityType   Code = 30
)
