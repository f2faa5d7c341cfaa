// The register of deviations: a link to an entry opens it, and shows it where the choice above has hidden it.
function openLinked() {
  const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const entry = place?.closest("section")?.querySelector(":scope > details");
  if (!entry) return;
  if (!entry.getClientRects().length) document.getElementById("zsr-show-all").checked = true;
  entry.open = true;
  place.scrollIntoView();
}
addEventListener("hashchange", openLinked);
openLinked();
