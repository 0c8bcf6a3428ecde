package site

import (
	"errors"
	"fmt"
	"net/http"

	"custode/simulators/spsim"
)

// problem is an error page; Detail is for technicians.
type problem struct {
	status                               int
	Badge, Heading, Text, Detail, Reason string
}

var (
	badChoice = problem{
		status: http.StatusBadRequest, Badge: "Richiesta non valida", Heading: "Scelta non riconosciuta",
		Text: "Torna alla pagina iniziale e scegli come entrare.",
	}
	noIdP = problem{
		status: http.StatusBadGateway, Badge: "Servizio non raggiungibile", Heading: "Il gestore di identità non risponde",
		Text: "Non è stato possibile leggere i metadati del gestore. Riprova più tardi.",
	}
	noRequest = problem{
		status: http.StatusInternalServerError, Badge: "Errore interno", Heading: "Non è stato possibile preparare la richiesta",
		Text: "Riprova più tardi.",
	}
	badForm = problem{
		status: http.StatusBadRequest, Badge: "Risposta non valida", Heading: "La risposta ricevuta non è leggibile",
		Text: "Torna alla pagina iniziale e riprova.",
	}
	strangeBrowser = problem{
		status: http.StatusForbidden, Badge: "Sessione scaduta", Heading: "Questo accesso non è stato chiesto da qui",
		Text: "La risposta è arrivata a un browser che non ha iniziato l'accesso, o troppo tardi.",
	}
	noPage = problem{
		status: http.StatusNotFound, Badge: "Errore 404", Heading: "Pagina non trovata",
		Text: "L'indirizzo non esiste, o la pagina è stata spostata.",
	}
)

// anomalyText is the sentence shown for an anomaly the person can understand;
// the others are faults of the request and get a common text.
var anomalyText = map[int]string{
	19: "Le credenziali inserite non erano corrette e i tentativi sono finiti. Riprova con le credenziali corrette.",
	20: "La tua identità non ha credenziali del livello richiesto da questo servizio.",
	21: "È passato troppo tempo prima di completare l'autenticazione. Riprova.",
	22: "Non hai dato il consenso all'invio dei dati: senza, il servizio non è disponibile.",
	23: "La tua identità o le tue credenziali sono sospese, revocate o bloccate. Rivolgiti al tuo gestore di identità.",
	25: "Hai annullato l'accesso.",
	30: "Hai usato un tipo di identità diverso da quello richiesto da questo servizio.",
}

// problemOf explains why a login failed.
func problemOf(failure error) problem {
	var anomaly *spsim.StatusError
	if !errors.As(failure, &anomaly) {
		return problem{
			status: http.StatusForbidden, Reason: "rifiuto",
			Badge: "Risposta rifiutata", Heading: "La risposta del gestore non è valida",
			Text: "Per la tua sicurezza il Comune non l'ha accettata.", Detail: failure.Error(),
		}
	}
	text, ok := anomalyText[anomaly.Anomaly]
	if !ok {
		text = "Il gestore di identità non ha accettato la richiesta di questo servizio. Riprova più tardi o avvisa il Comune."
	}
	return problem{
		status: http.StatusForbidden, Reason: "anomalia",
		Badge: fmt.Sprintf("Anomalia SPID n. %d", anomaly.Anomaly), Heading: "Accesso non riuscito",
		Text: text, Detail: anomaly.Message,
	}
}

func (s *site) showProblem(w http.ResponseWriter, p problem) {
	s.show(w, p.status, "errore", "form-action 'none'", struct {
		frame
		problem
	}{s.frame(p.Heading, p.Reason), p})
}
