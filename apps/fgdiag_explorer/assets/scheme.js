// Before anything is painted: light or dark, as chosen before in this browser, else as the system has it.
(function () {
  const kept = window.localStorage.getItem("mantine-color-scheme-value");
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  const scheme = kept === "light" || kept === "dark" ? kept : dark ? "dark" : "light";
  document.documentElement.setAttribute("data-mantine-color-scheme", scheme);
})();
