// Runs before the first paint, so that no page flashes in the other colours.
const root = document.documentElement;
root.classList.add("js");
try {
  const kept = localStorage.getItem("theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
} catch {
  // a browser that keeps nothing follows the system
}
