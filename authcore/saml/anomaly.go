package saml

// The SAML status URIs of the anomaly table (SAML Core 3.2.2.2).
const (
	statusPrefix      = "urn:oasis:names:tc:SAML:2.0:status:"
	statusSuccess     = statusPrefix + "Success"
	statusRequester   = statusPrefix + "Requester"
	statusResponder   = statusPrefix + "Responder"
	statusVersion     = statusPrefix + "VersionMismatch"
	statusNoContext   = statusPrefix + "NoAuthnContext"
	statusDenied      = statusPrefix + "RequestDenied"
	statusUnsupported = statusPrefix + "RequestUnsupported"
	statusNoPassive   = statusPrefix + "NoPassive"
	statusAuthnFailed = statusPrefix + "AuthnFailed"
)

// AnomalyRow is one row of the table of messages of anomaly (SPID technical
// rules; operating manual, Appendix A). The Italian sentences are the table's
// own, letter for letter; the English ones are our translation.
type AnomalyRow struct {
	Code      Code
	HTTP      int    // status of the page or of the form that carries the Response
	Response  bool   // a Response goes to the SP; else only a page to the person
	Status    string // top status URI, "" for a page
	SubStatus string // second level status URI, "" for none
	Message   string // StatusMessage, "" for none
	PageIT    string // sentence on the identity provider's page, "" for none
	PageEN    string
	AdviceIT  string // what the person can do, "" for none
	AdviceEN  string
}

const (
	adviceManagerIT = "Contattare il gestore del servizio"
	adviceManagerEN = "Contact the provider of the service"
	adviceLaterIT   = "Ripetere l'accesso al servizio più tardi"
	adviceLaterEN   = "Access the service again later"
	pageDownIT      = "Sistema di autenticazione non disponibile - Riprovare più tardi"
	pageDownEN      = "The authentication system is unavailable - Try again later"
	pageFormatIT    = "Formato richiesta non corretto - Contattare il gestore del servizio"
	pageFormatEN    = "The format of the request is wrong - Contact the provider of the service"
)

// pageRow is an anomaly told to the person only.
func pageRow(c Code, status int, it, en string) AnomalyRow {
	r := AnomalyRow{Code: c, HTTP: status, PageIT: it, PageEN: en, AdviceIT: adviceManagerIT, AdviceEN: adviceManagerEN}
	if status >= 500 {
		r.AdviceIT, r.AdviceEN = adviceLaterIT, adviceLaterEN
	}
	return r
}

// replyRow is an anomaly told to the SP in a signed Response.
func replyRow(c Code, status, sub string) AnomalyRow {
	return AnomalyRow{Code: c, HTTP: 200, Response: true, Status: status, SubStatus: sub, Message: statusMessage(c)}
}

func statusMessage(c Code) string {
	return "ErrorCode nr" + string([]byte{'0' + byte(c)/10, '0' + byte(c)%10})
}

// advise adds the sentences of a row whose Response follows a page.
func (r AnomalyRow) advise(pageIT, pageEN, adviceIT, adviceEN string) AnomalyRow {
	r.PageIT, r.PageEN, r.AdviceIT, r.AdviceEN = pageIT, pageEN, adviceIT, adviceEN
	return r
}

// anomalyRows is the table in the order of the codes.
var anomalyRows = [...]AnomalyRow{
	{Code: Success, HTTP: 200, Response: true, Status: statusSuccess},
	pageRow(SystemUnavailable, 503, pageDownIT, pageDownEN),
	pageRow(SystemError, 500, pageDownIT, pageDownEN),
	pageRow(BadBinding, 403, pageFormatIT, pageFormatEN),
	pageRow(BadRedirectSig, 403,
		"Impossibile stabilire l'autenticità della richiesta di autenticazione - Contattare il gestore del servizio",
		"The authenticity of the authentication request cannot be established - Contact the provider of the service"),
	pageRow(WrongMethod, 403,
		"Formato richiesta non ricevibile - Contattare il gestore del servizio",
		"A request of this format cannot be received - Contact the provider of the service"),
	pageRow(BadPostSig, 403, pageFormatIT, pageFormatEN),
	replyRow(NotConformant, statusRequester, ""),
	replyRow(BadVersion, statusVersion, ""),
	pageRow(BadIssuer, 403, pageFormatIT, pageFormatEN),
	replyRow(BadID, statusRequester, ""),
	replyRow(BadAuthnContext, statusRequester, statusNoContext).advise(
		"Autenticazione SPID non conforme o non specificata", "SPID authentication not conformant or not specified", "", ""),
	replyRow(BadIssueInstant, statusRequester, statusDenied),
	replyRow(BadDestination, statusRequester, statusUnsupported),
	replyRow(Passive, statusRequester, statusNoPassive),
	replyRow(BadACS, statusRequester, statusUnsupported),
	replyRow(BadNameIDPolicy, statusRequester, statusUnsupported),
	replyRow(BadAttributeService, statusRequester, statusUnsupported),
	replyRow(TooManyAttempts, statusResponder, statusAuthnFailed).advise(
		"", "", "Inserire le credenziali corrette", "Enter the right credentials"),
	replyRow(NoCredentials, statusResponder, statusAuthnFailed).advise(
		"", "", "Acquisire credenziali di livello idoneo all'accesso al servizio richiesto",
		"Obtain credentials of a level that gives access to the requested service"),
	replyRow(TimedOut, statusResponder, statusAuthnFailed).advise(
		"", "", "L'operazione di autenticazione deve essere completata entro un determinato periodo di tempo",
		"The authentication must be completed within a set time"),
	replyRow(ConsentRefused, statusResponder, statusAuthnFailed).advise("", "", "Dare consenso", "Give consent"),
	replyRow(NotActive, statusResponder, statusAuthnFailed).advise(
		"Credenziali sospese o revocate", "Credentials suspended or revoked", "", ""),
	replyRow(Cancelled, statusResponder, statusAuthnFailed),
	replyRow(WrongIdentityType, statusResponder, statusAuthnFailed),
}

// Anomaly returns the row of a code; false for a code that an authentication
// never ends with (0, 24, 26 to 29 and everything above 30).
func Anomaly(c Code) (AnomalyRow, bool) {
	for _, r := range anomalyRows {
		if r.Code == c {
			return r, true
		}
	}
	return AnomalyRow{}, false
}
