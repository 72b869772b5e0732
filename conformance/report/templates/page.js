"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Light or dark: the system's choice until the button is used.
const root = document.documentElement;
const theme = document.getElementById("theme");
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const nameOther = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.hidden = false;
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameOther(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameOther);
nameOther();

// Filter the requirements: areas with a match are open, others are out of the way; without a filter all is as it was.
const form = document.getElementById("filter");
const areas = all("details.area").map(area => ({ area, wasOpen: area.open, rows: all("tbody > tr", area) }));
const total = areas.reduce((sum, { rows }) => sum + rows.length, 0);
const filter = () => {
  const verdicts = all("[name=verdict]:checked", form).map(box => box.value);
  const [name, tier, text] = ["area", "tier", "text"].map(field => form.elements[field].value);
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const active = Boolean(verdicts.length || name || tier || words.length);
  const fits = row => (!verdicts.length || verdicts.some(verdict => row.dataset.verdicts.includes(verdict)))
    && (!tier || row.dataset.tier === tier)
    && words.every(word => row.textContent.toLowerCase().includes(word));
  let shown = 0;
  for (const { area, wasOpen, rows } of areas) {
    let here = 0;
    for (const row of rows) {
      row.hidden = !((!name || area.dataset.area === name) && fits(row));
      here += !row.hidden;
    }
    area.hidden = here === 0;
    area.open = active ? here > 0 : wasOpen;
    shown += here;
  }
  form.querySelector("output").textContent = `${shown} of ${total} requirements`;
};
form.hidden = total === 0;
form.addEventListener("input", filter);
form.addEventListener("submit", event => event.preventDefault());
filter();

// A click on a cell opens what its row says at length; on paper every area is open.
document.addEventListener("click", event => {
  const row = event.target.closest("table.cells tbody td")?.parentElement;
  if (row) row.querySelector("details").open ^= true;
});
addEventListener("hashchange", () => document.querySelector(`details${location.hash || "#"}`)?.setAttribute("open", ""));
addEventListener("beforeprint", () => areas.forEach(({ area }) => { area.dataset.open = area.open ? "yes" : ""; area.open = true; }));
addEventListener("afterprint", () => areas.forEach(({ area }) => { area.open = area.dataset.open === "yes"; }));
