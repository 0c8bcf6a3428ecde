package catalogue

import "strconv"

// StatusPrefix begins every status URI (SAML Core 3.2.2.2).
const StatusPrefix = "urn:oasis:names:tc:SAML:2.0:status:"

// Row is one row of the table of anomalies (SPID technical rules, messages of
// anomaly): what an auditor must see. It is this package's own copy, compared in
// a test with the machine-readable table; the product's table is another one.
type Row struct {
	Code     int
	HTTP     int
	Response bool   // a signed Response goes to the SP; else a page to the person only
	Status   string // without the common prefix, as SubStatus
	Sub      string
	PageIT   string // sentence on the page, letter for letter
	PageEN   string // this product's translation (docs/errors.md)
}

// Message is the StatusMessage, "" when the row has none.
func (r Row) Message() string {
	if !r.Response || r.Code == 1 {
		return ""
	}
	return "ErrorCode nr" + strconv.Itoa(100 + r.Code)[1:]
}

const (
	unavailableIT = "Sistema di autenticazione non disponibile - Riprovare più tardi"
	unavailableEN = "The authentication system is unavailable - Try again later"
	malformedIT   = "Formato richiesta non corretto - Contattare il gestore del servizio"
	malformedEN   = "The format of the request is wrong - Contact the provider of the service"
)

// Table has the rows an authentication can end with; 24 and 26 to 29 are never
// emitted.
var Table = map[int]Row{
	1:  {1, 200, true, "Success", "", "", ""},
	2:  {2, 503, false, "", "", unavailableIT, unavailableEN},
	3:  {3, 500, false, "", "", unavailableIT, unavailableEN},
	4:  {4, 403, false, "", "", malformedIT, malformedEN},
	5:  {5, 403, false, "", "", "Impossibile stabilire l'autenticità della richiesta di autenticazione - Contattare il gestore del servizio", "The authenticity of the authentication request cannot be established - Contact the provider of the service"},
	6:  {6, 403, false, "", "", "Formato richiesta non ricevibile - Contattare il gestore del servizio", "A request of this format cannot be received - Contact the provider of the service"},
	7:  {7, 403, false, "", "", malformedIT, malformedEN},
	8:  {8, 200, true, "Requester", "", "", ""},
	9:  {9, 200, true, "VersionMismatch", "", "", ""},
	10: {10, 403, false, "", "", malformedIT, malformedEN},
	11: {11, 200, true, "Requester", "", "", ""},
	12: {12, 200, true, "Requester", "NoAuthnContext", "Autenticazione SPID non conforme o non specificata", "SPID authentication not conformant or not specified"},
	13: {13, 200, true, "Requester", "RequestDenied", "", ""},
	14: {14, 200, true, "Requester", "RequestUnsupported", "", ""},
	15: {15, 200, true, "Requester", "NoPassive", "", ""},
	16: {16, 200, true, "Requester", "RequestUnsupported", "", ""},
	17: {17, 200, true, "Requester", "RequestUnsupported", "", ""},
	18: {18, 200, true, "Requester", "RequestUnsupported", "", ""},
	19: {19, 200, true, "Responder", "AuthnFailed", "", ""},
	20: {20, 200, true, "Responder", "AuthnFailed", "", ""},
	21: {21, 200, true, "Responder", "AuthnFailed", "", ""},
	22: {22, 200, true, "Responder", "AuthnFailed", "", ""},
	23: {23, 200, true, "Responder", "AuthnFailed", "Credenziali sospese o revocate", "Credentials suspended or revoked"},
	25: {25, 200, true, "Responder", "AuthnFailed", "", ""},
	30: {30, 200, true, "Responder", "AuthnFailed", "", ""},
}
