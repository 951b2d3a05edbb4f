// Light and dark: as the system says, until the reader says otherwise.

const CHOICES = ["system", "light", "dark"];

function stored() {
  try {
    return localStorage.getItem("saematch-theme");
  } catch {
    return null; // a file opened from the disk may have no storage
  }
}

export function startTheme(button) {
  let choice = CHOICES.includes(stored()) ? stored() : "system";
  const show = () => {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.textContent = `theme: ${choice}`;
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    try {
      localStorage.setItem("saematch-theme", choice);
    } catch { /* it holds until the page is closed */ }
    show();
  });
  show();
}
