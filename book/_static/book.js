// Copy a command to the clipboard, and say so on the button that was clicked.
function sbilibCopy(button, command) {
  const label = button.querySelector(".btn__text-container");
  const before = label.textContent;
  const say = (text) => {
    label.textContent = text;
    setTimeout(() => { label.textContent = before; }, 2500);
  };
  if (navigator.clipboard && window.isSecureContext) {
    navigator.clipboard.writeText(command).then(() => say("Copied"), () => say(command));
  } else {
    say(command);
  }
}
