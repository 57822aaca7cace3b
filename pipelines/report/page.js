"use strict";
const one = (id) => document.getElementById(id);
const samples = [...document.querySelectorAll(".sample")];
function filter() {
  const component = one("by-component").value;
  const rule = one("by-rule").value;
  const id = one("by-id").value.trim().toLowerCase();
  let shown = 0;
  for (const sample of samples) {
    const fits =
      (!component || sample.dataset.component === component) &&
      (!rule || sample.dataset.rule === rule) &&
      (!id || sample.dataset.id.toLowerCase().includes(id));
    sample.hidden = !fits;
    shown += fits;
  }
  for (const row of document.querySelectorAll(".row")) {
    row.hidden = !row.querySelector(".sample:not([hidden])");
  }
  one("shown").value = `${shown} of ${samples.length} samples`;
  one("nothing").hidden = shown > 0;
}
for (const id of ["by-component", "by-rule"]) one(id).addEventListener("change", filter);
one("by-id").addEventListener("input", filter);
document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
filter();
