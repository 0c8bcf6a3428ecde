// Sends the Response on its way; without scripts the button does.
document.getElementById("handover").submit();
